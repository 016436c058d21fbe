"""Whole networks: functional graphs with named outputs.

Importing this package registers every layer with Keras, so that saved networks load.
"""

from wsss_tf.models import affinitynet as affinitynet
from wsss_tf.models import cpnet as cpnet
from wsss_tf.models import deeplab as deeplab
from wsss_tf.models import fcn as fcn
from wsss_tf.models import irn as irn
from wsss_tf.models import sanet as sanet
from wsss_tf.models import seam as seam
from wsss_tf.models import sec as sec
