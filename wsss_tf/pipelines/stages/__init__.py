"""The kinds of stages that a pipeline may list, one factory a kind; gin configures and lists them.

  crf.crf_stage.powers = (4.0, 24.0)
  settings.Pipeline.stages = (@cam/train.train_stage(), @cams.cams_stage(), @crf.crf_stage(), ...)

A factory's name ends in `_stage`, which is how a binding is known to be for a stage and not for a
recipe. It checks its settings and returns `context.Description`: what the stage does follows from
run folder, recipes and data, once these are known. A stage that is used twice has a scope for each.
"""
