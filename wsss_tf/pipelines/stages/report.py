"""The stage that shows everything: table, times, and pictures through all the stages."""

import functools

from wsss_tf.pipelines import results
from wsss_tf.pipelines.context import Description, Planned
from wsss_tf.pipelines.records import Stage
from wsss_tf.pipelines.stages.values import check_count


def report_stage(name="report", run="segmentation", images=12, reference=None):
    """Return the stage that writes results.json, results.md and report.html.

    Args:
      name: of the stage.
      run: name of the stage that trains the network whose masks are shown.
      images: how many pictures the report shows.
      reference: name of the stage whose scores those of the first network are compared with, if it
        is there.
    """
    check_count("report_stage.images", images)

    def resolve(context):
        context.trained_by("report_stage.run", run)
        shown = context.run_dir / results.SHOWN
        predict = (
            functools.partial(results.write_pictures, context, images),
            (
                "infer",
                f"--run_dir={context.run_dir / run}",
                f"--input={shown / results.PICTURES}",
                f"--output={shown}",
            ),
        )
        write = functools.partial(results.write_results, context, images, reference)
        scored = [one.name for one in context.stages if context.planned[one.name].scores]
        labels = [results.LABEL_SCORES] if results.LABEL_SCORES in context.planned else []
        stage = Stage(
            name=name,
            steps=(*predict, write) if images else (write,),
            inputs={"images": images, "full_supervision": context.full_supervision},
            after=(run, *labels, *scored),
            outputs=(results.SHOWN, results.RESULTS, results.TABLE, results.PAGE),
            proof=results.RESULTS,
            # Pictures of another choice must not be left among those shown.
            is_resumable=False,
        )
        return Planned(stage, made={"report": context.run_dir / results.PAGE})

    return Description(name, resolve)
