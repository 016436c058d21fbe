"""The stage that scores what the stages before it made of the pictures trained on."""

import functools

from wsss_tf.data.fingerprint import fingerprint
from wsss_tf.pipelines.context import Description, Planned
from wsss_tf.pipelines.records import Stage
from wsss_tf.pipelines.results import LABEL_SCORES, score_labels


def label_scores_stage():
    """Return the stage that scores all maps and labels that there are by then."""

    def resolve(context):
        made = {name: one for name, one in context.planned.items() if one.stage is not None}
        before = [name for name, one in made.items() if one.maps or one.scored]
        file = f"{LABEL_SCORES}.json"
        stage = Stage(
            name=LABEL_SCORES,
            steps=(functools.partial(score_labels, context),),
            inputs={"data": fingerprint(context.score)},
            after=tuple(before),
            outputs=(file,),
            proof=file,
        )
        return Planned(stage)

    return Description(LABEL_SCORES, resolve)
