"""Predicted masks, of a network that gives them."""

from absl import flags

FLAGS = ("postprocess",)
_POSTPROCESS = flags.DEFINE_bool(
    "postprocess", True, "For masks: apply the recipe's postprocess (such as a CRF), if it has one."
)


def run(recipe, net, source, output, scales, flip, **work):
    """Write `predictions/<id>.png` for every image of a source.

    Args:
      recipe, net: of the run.
      source: `data.source.Source`.
      output: folder, a `pathlib.Path`.
      scales, flip: None for the recipe's.
      **work: `batch_size`, `overwrite` and `max_side` as in `inference.write_masks.predict_source`.
    """
    from wsss_tf.inference.write_masks import predict_source
    from wsss_tf.runs.training_run import make_postprocess, make_predictor

    options = {"scales": scales, "flip": flip}
    options = {name: value for name, value in options.items() if value is not None}
    written, kept = predict_source(
        make_predictor(recipe, net, **options),
        source,
        output,
        postprocess=make_postprocess(recipe) if _POSTPROCESS.value else None,
        **work,
    )
    print(f"{written} written, {kept} kept: {output / 'predictions'}")
