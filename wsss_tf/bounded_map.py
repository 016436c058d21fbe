"""A function mapped by a pool, in order, with a bounded number of calls under way."""

import collections


def bounded_map(pool, function, arguments, ahead):
    """Yield `function(*args)` for each `args` of an iterable, in order.

    `Executor.map` reads the whole iterable at once, and keeps every result that nobody has taken.

    Args:
      pool: `concurrent.futures.Executor`; its owner shuts it down.
      function: what the pool calls; with processes, one that can be pickled.
      arguments: iterable of tuples, read only as far ahead as calls are.
      ahead: how many calls may wait or have been done beyond the result that is yielded.

    Raises:
      Whatever `function` raises, in its turn.
    """
    under_way = collections.deque()
    for args in arguments:
        under_way.append(pool.submit(function, *args))
        if len(under_way) > ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
