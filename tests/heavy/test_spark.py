"""PySpark on this machine, with safepickle as the serializer of its data."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from averaged import Averaged
from engine_objects import Node, fail_with_a_path, is_whole, there_and_back, tree

pytestmark = [
    pytest.mark.skipif(
        shutil.which("java") is None and "JAVA_HOME" not in os.environ, reason="Spark runs on Java, and there is none"
    ),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    from pyspark import SparkConf, SparkContext

    from safepickle.integrations.spark import SafepickleSerializer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        conf = SparkConf().setMaster("local[1]").set("spark.ui.enabled", "false").set("spark.driver.memory", "512m")
        context = SparkContext(conf=conf, serializer=SafepickleSerializer())
        context.setLogLevel("OFF")
        yield context
        context.stop()


def test_weak_references_go_there_and_back(spark: Any) -> None:
    results = spark.parallelize([tree(), tree()], 1).map(there_and_back).collect()
    assert [was_whole for was_whole, _ in results] == [True, True]
    assert all(is_whole(root) for _, root in results)


def test_weak_references_survive_a_shuffle(spark: Any) -> None:
    pairs = spark.parallelize([("a", tree()), ("b", tree()), ("a", tree())], 2)
    assert sorted(pairs.groupByKey().mapValues(count_whole).collect()) == [("a", 2), ("b", 1)]


def count_whole(roots: Any) -> int:
    return sum(map(is_whole, roots))


def test_model_with_ema_goes_there_and_back(spark: Any) -> None:
    ((was_whole, copied),) = spark.parallelize([Averaged()], 1).map(lambda m: (m.is_whole(), m)).collect()
    assert was_whole
    assert copied.is_whole()


def test_an_error_with_a_path_is_in_the_message_that_spark_makes_of_it(spark: Any) -> None:
    from py4j.protocol import Py4JJavaError

    with pytest.raises(Py4JJavaError, match="WeakReferenceError: cannot pickle the weak reference"):
        spark.parallelize([Node("any")], 1).map(fail_with_a_path).collect()
