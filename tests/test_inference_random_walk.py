"""The random walk: the official numbers, what it must leave alone, and pictures of any size."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from pair_indices import pair_indices

from wsss_tf import ops
from wsss_tf.data.source import Source
from wsss_tf.errors import UserError
from wsss_tf.files import images, run_folder
from wsss_tf.inference.cam_crf import crf_probs
from wsss_tf.inference.dense_crf import RANDOM_WALK_CRF, CrfParameters, dense_crf
from wsss_tf.inference.random_walk import (
    Grid,
    PictureAffinity,
    PictureGraph,
    label_by_walk,
    pooled_scores,
    transition_matrix,
    walk,
)
from wsss_tf.inference.write_walk import walk_source
from wsss_tf.layers.pair_affinity import PairAffinity
from wsss_tf.runs.infer_walk import load_affinity


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def pairs_of(dense, height, width, radius):
    """Return the affinities [O, M] that a dense matrix was made of."""
    start, end = pair_indices(height, width, radius)
    return dense[start[None], end]


@pytest.fixture
def walked(golden):
    data = golden("psa_random_walk")
    return data, pairs_of(data["aff_dense"], 12, 13, 5)


@pytest.mark.parametrize("file", ["psa_affinity_0", "psa_affinity_1"])
def test_matrix_has_the_official_links_and_no_others(golden, file):
    data = golden(file)
    height, width = data["feature"].shape[1:3]
    start, end = pair_indices(height, width, int(data["radius"]))
    np.testing.assert_array_equal(start, data["ind_from"])
    np.testing.assert_array_equal(end, data["ind_to"])
    matrix = transition_matrix(data["aff"][0], height, width, int(data["radius"]), 1.0)
    expected = data["dense"] / data["dense"].sum(axis=0)
    close(matrix.toarray(), expected, atol=1e-6)
    assert matrix.nnz == np.count_nonzero(data["dense"])


def test_transitions_are_the_official_ones(walked):
    data, affinity = walked
    transition = transition_matrix(affinity, 12, 13, 5, float(data["beta"]))
    close(transition.toarray(), data["trans"], atol=1e-6)
    close(transition.sum(axis=0), np.ones(156), atol=1e-6)


def test_products_equal_the_power(walked):
    data, affinity = walked
    transition = transition_matrix(affinity, 12, 13, 5)
    scores = walk(data["cam_pooled"], transition, 2 ** int(data["logt"]))
    close(scores, data["walked"])
    # The formula that the file's numbers come from.
    flat = data["cam_pooled"].reshape(156, 21).T @ data["trans_pow"]
    close(scores, flat.T.reshape(12, 13, 21))


def test_labels_are_the_official_ones(walked):
    data, affinity = walked
    start = crf_probs(data["cams"], float(data["alpha"])).transpose(2, 0, 1)
    pooled = pooled_scores(start)
    close(pooled, data["cam_pooled"][..., [0, 3, 15]], atol=1e-6)
    close(ops.resize_bilinear(data["walked"][None], (96, 104), False)[0], data["up"], atol=2e-6)
    image = np.zeros((90, 101, 3), np.uint8)
    class_ids = data["cam_classes"] + 1
    label = label_by_walk(
        image, class_ids, data["cams"], PictureGraph(affinity, Grid(12, 13, 5, 8))
    )
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, data["pred"])
    assert set(np.unique(label)) == {0, 3, 15}


def test_above_a_share_of_the_highest_score(walked):
    """With a threshold the classes walk without a background, and a constant is theirs."""
    data, affinity = walked
    image = np.zeros((90, 101, 3), np.uint8)
    grid = Grid(12, 13, 5, 8)
    transition = transition_matrix(affinity, *grid[:3])
    scores = walk(pooled_scores(np.float32(data["cams"])), transition)
    scores = ops.resize_bilinear(scores[None], (96, 104), align_corners=False)[0, :90, :101]
    scores = scores.numpy() / scores.numpy().max()
    for threshold in (0.3, 0.6):
        label = label_by_walk(
            image,
            [3, 15],
            data["cams"],
            PictureGraph(affinity, grid),
            threshold=threshold,
        )
        expected = np.where(scores.max(-1) > threshold, np.array([3, 15])[scores.argmax(-1)], 0)
        assert (label == expected).mean() > 0.9999  # but for rounding at the threshold itself
        assert set(np.unique(label)) == {0, 3, 15}
    # However weak the maps are, the peak of the strongest class is kept.
    weak = label_by_walk(
        image, [3, 15], data["cams"] / 50, PictureGraph(affinity, grid), threshold=0.6
    )
    assert (weak == label).mean() > 0.999
    none = label_by_walk(
        image, [3, 15], 0 * data["cams"], PictureGraph(affinity, grid), threshold=0.6
    )
    assert not none.any()


def test_crf_behind_a_threshold(walked):
    data, affinity = walked
    image = np.random.default_rng(0).integers(0, 256, (90, 101, 3)).astype(np.uint8)
    arguments = (image, [3, 15], data["cams"], PictureGraph(affinity, Grid(12, 13, 5, 8)))
    plain = label_by_walk(*arguments, threshold=0.6)
    sure = CrfParameters(iterations=1, unary_weight=1000.0)
    assert (label_by_walk(*arguments, threshold=0.6, crf=sure) == plain).mean() > 0.999
    smooth = label_by_walk(*arguments, threshold=0.6, crf=CrfParameters(bilateral_weight=0.0))
    assert 0 < (smooth != plain).mean() < 0.2


def random_affinity(grid, seed=0):
    start, end = pair_indices(*grid)
    return np.random.default_rng(seed).random(end.shape)


GRIDS = [(12, 14, 5), (7, 9, 3), (1, 6, 0), (2, 3, 0), (3, 5, 1), (4, 4, 1), (5, 20, 2)]


@pytest.mark.parametrize("grid", GRIDS)
def test_constant_scores_stay(grid):
    height, width, radius = grid
    assert ops.search_radius(height, width) == radius
    transition = transition_matrix(random_affinity(grid), *grid)
    close(transition.sum(axis=0), np.ones(height * width), atol=1e-6)
    scores = np.broadcast_to(np.float32([0.2, 0.7]), (height, width, 2))
    close(walk(scores, transition), scores)


def test_no_pairs_no_walk():
    scores = np.random.default_rng(0).random((2, 7, 3))
    transition = transition_matrix(np.zeros((0, 14)), 2, 7, 0)
    close(walk(scores, transition), scores, atol=1e-7)
    rng = np.random.default_rng(1)
    scores = rng.random((12, 14, 3))
    grid = (12, 14, 5)
    close(walk(scores, transition_matrix(random_affinity(grid), *grid), steps=0), scores, 1e-7)
    close(walk(scores, transition_matrix(0 * random_affinity(grid), *grid)), scores, atol=1e-6)


def test_scores_stay_in_their_region():
    """Pixels on both sides of a seam that no affinity crosses do not mix."""
    grid = (12, 14, 5)
    start, end = pair_indices(*grid)
    side = (np.arange(12 * 14) % 14 >= 6).astype(int)
    affinity = np.where(side[start[None]] == side[end], 0.9, 0.0)
    scores = np.zeros((168, 2), np.float32)
    scores[[20, 100], side[[20, 100]]] = 1
    scores = walk(scores.reshape(12, 14, 2), transition_matrix(affinity, *grid)).reshape(168, 2)
    assert not scores[side == 0, 1].any()
    assert not scores[side == 1, 0].any()
    assert (scores[:, 0] > 0).sum() > 20


def test_classes_can_be_permuted(walked):
    data, affinity = walked
    cams = np.stack([*data["cams"], data["cams"][0] * 0.8])
    image = np.zeros((90, 101, 3), np.uint8)
    grid = Grid(12, 13, 5, 8)
    label = label_by_walk(image, [2, 5, 9], cams, PictureGraph(affinity, grid))
    order = [2, 0, 1]
    ids = np.array([2, 5, 9])[order]
    permuted = label_by_walk(image, ids, cams[order], PictureGraph(affinity, grid))
    np.testing.assert_array_equal(permuted, label)


def test_picture_without_classes_is_background():
    image = np.zeros((20, 30, 3), np.uint8)
    affinity = random_affinity((3, 4, 1))
    label = label_by_walk(
        image, [], np.zeros((0, 20, 30)), PictureGraph(affinity, Grid(3, 4, 1, 8))
    )
    assert label.shape == (20, 30)
    assert not label.any()


def test_crf_runs_on_the_padded_picture(walked):
    data, affinity = walked
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (90, 101, 3), dtype=np.uint8)
    grid = Grid(12, 13, 5, 8)
    label = label_by_walk(
        image, [3, 15], data["cams"], PictureGraph(affinity, grid), crf=RANDOM_WALK_CRF
    )
    padded = np.tile(np.uint8([123, 116, 103]), (96, 104, 1))
    padded[:90, :101] = image
    scores = ops.resize_bilinear(data["walked"][None], (96, 104), False)[0].numpy()
    expected = dense_crf(scores[..., [0, 3, 15]], padded, RANDOM_WALK_CRF).argmax(-1)[:90, :101]
    assert (label == np.array([0, 3, 15])[expected]).mean() > 0.999
    assert (label != data["pred"]).any()


def colour_network(stride=8, radius=5):
    """Stands for the network: mean colours of blocks, alike within a region."""
    image = keras.Input((None, None, 3))
    features = keras.layers.AveragePooling2D(stride)(image)
    affinity = PairAffinity(radius, name="affinity")(features)
    return keras.Model(image, {"features": features, "affinity": affinity})


COMPUTE = PictureAffinity(colour_network())


@pytest.mark.parametrize("size", [(37, 61), (1, 1), (3, 90), (96, 104), (8, 130)])
def test_pictures_of_any_size(size):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    graphs = COMPUTE(pictures)
    height, width, radius, stride, border = graphs[0].grid
    assert border == 0
    assert graphs[1].grid == graphs[0].grid
    affinities = np.stack([graph.affinity for graph in graphs])
    assert stride == 8
    assert (height, width) == (-(-size[0] // 8), -(-size[1] // 8))
    start, end = pair_indices(height, width, radius)
    assert affinities.shape == (2, *end.shape)
    padded = np.zeros((2, 8 * height, 8 * width, 3), np.float32)
    padded[:, : size[0], : size[1]] = ops.normalize_image(pictures)
    features = padded.reshape(2, height, 8, width, 8, 3).mean(axis=(2, 4)).reshape(2, -1, 3)
    expected = np.exp(-np.abs(features[:, end] - features[:, start[None]]).mean(-1))
    close(affinities, expected)
    cams = rng.random((2, *size))
    label = label_by_walk(pictures[0], [1, 4], cams, graphs[0])
    assert label.shape == size


def test_stride_and_radius_are_the_networks():
    image = picture_of_two_regions((70, 200), 0)
    [graph] = PictureAffinity(colour_network(stride=16, radius=2))(image[None])
    assert graph.grid == Grid(5, 13, 2, 16)
    assert graph.affinity.shape == (len(ops.pair_offsets(2)), 4 * 11)
    cams = 0.9 * right_half(70, 200)[None]
    label = label_by_walk(image, [3], cams, graph)
    assert label.shape == (70, 200)
    assert ((label == 3) == right_half(70, 200)).mean() > 0.9


def picture_of_two_regions(size, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 30, (*size, 3))
    image[:, size[1] // 2 :] += 200
    return image.astype(np.uint8)


def right_half(height, width):
    return np.broadcast_to(np.arange(width) >= width // 2, (height, width))


SIZES = [(64, 96), (64, 96), (75, 110)]


@pytest.fixture
def source(tmp_path):
    """Three pictures whose right half is a class, and CAMs that show most blocks of it."""
    pictures = [picture_of_two_regions(size, i) for i, size in enumerate(SIZES)]

    def read(index):
        cases = [lambda p=p: tf.constant(p) for p in pictures]
        image = tf.switch_case(tf.cast(index, tf.int32), cases)
        image.set_shape([None, None, 3])
        return {"image": image}

    source = Source("test", "all", ("background", "x", "y"), ("a", "sub/b", "c"),
                    np.ones((3, 2)), read, False)  # fmt: skip
    rng = np.random.default_rng(0)
    for image_id, (height, width) in zip(source.ids, SIZES):
        shown = np.where(right_half(height, width), 0.7, 0.1)
        blocks = rng.random((-(-height // 8), -(-width // 8))).repeat(8, 0).repeat(8, 1)
        cams = 0.95 * (blocks[None, :height, :width] < shown)
        run_folder.save_cams(tmp_path / "cam_run/cams", image_id, [2], cams)
    return source


def test_walk_fills_the_region_and_keeps_what_is_there(source, tmp_path):
    cam_run, output = tmp_path / "cam_run", tmp_path / "out"
    assert walk_source(COMPUTE, source, cam_run, output, steps=16) == (3, 0, [])
    for image_id, (height, width) in zip(source.ids, SIZES):
        label = images.load_mask(output / f"pseudo_labels/{image_id}.png")
        assert label.shape == (height, width)
        assert set(np.unique(label)) == {0, 2}
        shown = run_folder.load_cams(cam_run / "cams", image_id)[1][0] > 0.5
        truth = right_half(height, width)
        assert (shown == truth).mean() < 0.85
        assert ((label == 2) == truth).mean() > 0.9  # pixels without links stay
    one = walk_source(COMPUTE, source, cam_run, tmp_path / "one", steps=16, batch_size=1)
    assert one == (3, 0, [])
    for path in (tmp_path / "out").rglob("*.png"):
        other = tmp_path / "one" / path.relative_to(tmp_path / "out")
        assert other.read_bytes() == path.read_bytes()
    (output / "pseudo_labels/sub/b.png").unlink()
    assert walk_source(COMPUTE, source, cam_run, output) == (1, 2, [])
    assert walk_source(COMPUTE, source, cam_run, output) == (0, 3, [])
    assert walk_source(COMPUTE, source, cam_run, output, overwrite=True) == (3, 0, [])


def test_labels_that_lose_a_class_are_named(source, tmp_path):
    cam_run = tmp_path / "cam_run"
    [shown] = run_folder.load_cams(cam_run / "cams", "sub/b")[1]
    # The other class is everywhere weaker.
    run_folder.save_cams(cam_run / "cams", "sub/b", [1, 2], np.stack([shown / 4, shown]))
    walked = walk_source(COMPUTE, source, cam_run, tmp_path / "out", steps=16, threshold=0.5)
    assert walked == (3, 0, ["sub/b"])


def test_missing_cams_are_named(source, tmp_path):
    (tmp_path / "cam_run/cams/c.npz").unlink()
    with pytest.raises(UserError, match=r"1 of 3 images of split 'all' .*c\.npz"):
        walk_source(None, source, tmp_path / "cam_run", tmp_path / "out")


def test_affinity_run_of_an_earlier_version_is_refused(tmp_path):
    net = colour_network()
    old = keras.Model(net.input, {"features": net.output["features"]})
    (tmp_path / "checkpoints").mkdir()
    old.save(tmp_path / "checkpoints/last.keras")
    with pytest.raises(UserError, match=r"--affinity_run=.* train gin/affinity\.gin again"):
        load_affinity(tmp_path)
    net.save(tmp_path / "checkpoints/last.keras")
    assert load_affinity(tmp_path).layer.radius == 5
