import concurrent.futures

import pytest

from wsss_tf.bounded_map import bounded_map


def test_results_come_in_order_and_little_is_read_ahead():
    read = []

    def arguments():
        for i in range(100):
            read.append(i)
            yield i, 2

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = bounded_map(pool, pow, arguments(), ahead=5)
        assert not read
        assert next(results) == 0
        assert len(read) == 6
        assert list(results) == [i**2 for i in range(1, 100)]


def test_fewer_calls_than_may_wait():
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert list(bounded_map(pool, abs, [(-1,), (2,)], ahead=5)) == [1, 2]
        assert list(bounded_map(pool, abs, [], ahead=5)) == []


def test_an_error_comes_in_its_turn():
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = bounded_map(pool, divmod, [(7, 2), (1, 0), (1, 1)], ahead=5)
        assert next(results) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            next(results)
