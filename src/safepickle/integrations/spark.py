"""PySpark: a serializer for the data of RDDs. Spark pickles functions by itself, with its own cloudpickle."""

from __future__ import annotations

from pyspark.serializers import FramedSerializer

import safepickle

__all__ = ["SafepickleSerializer"]


class SafepickleSerializer(FramedSerializer):  # type: ignore[misc]
    """For ``SparkContext(serializer=SafepickleSerializer())``: the elements of RDDs are pickled with safepickle.

    Spark writes elements in batches, each batch as one pickle: a weak reference whose referent is in the same batch is
    relinked, and which elements share a batch is up to Spark. So let each element hold what it refers to.

    Examples:
        >>> from safepickle.integrations.spark import SafepickleSerializer
        >>> serializer = SafepickleSerializer()  # SparkContext(serializer=serializer)
        >>> serializer.loads(serializer.dumps([1, 2]))
        [1, 2]
    """

    dumps = staticmethod(safepickle.dumps)
    loads = staticmethod(safepickle.loads)
