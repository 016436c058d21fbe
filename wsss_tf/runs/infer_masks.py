"""Predicted masks, of a network that gives them."""

from wsss_tf.files.run_folder import RunFolder


def infer_masks(
    run,
    net,
    source,
    output,
    scales=None,
    flip=None,
    use_postprocess=True,
    batch_size=8,
    overwrite=False,
    max_side=None,
):
    """Write a predicted mask for every image of a source, and say so.

    Args:
      run: `trained_run.TrainedRun`.
      net: its network.
      source: `data.source.Source`.
      output: folder.
      scales, flip: None for the recipe's.
      use_postprocess: apply the recipe's (such as a CRF), if it has one.
      batch_size, overwrite, max_side: as in `inference.write_masks.predict_source`.
    """
    from wsss_tf.inference.write_masks import predict_source
    from wsss_tf.runs.training_run import make_postprocess, make_predictor

    options = {"scales": scales, "flip": flip}
    options = {name: value for name, value in options.items() if value is not None}
    written, kept = predict_source(
        make_predictor(run.recipe, net, **options),
        source,
        output,
        make_postprocess(run.recipe) if use_postprocess else None,
        batch_size,
        overwrite,
        max_side,
    )
    print(f"{written} written, {kept} kept: {RunFolder(output).predictions}")
