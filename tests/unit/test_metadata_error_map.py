"""Every error of the layers below has its answer."""

import pytest

from gateway.metadata.errors import MetadataError, NoSuchKey
from gateway.objects.errors import ObjectsError
from gateway.operations.error_map import ERROR_MAP, to_s3_error
from gateway.s3.errors import ErrorCode, S3Error
from placement.errors import OutcomeUnknown, PlacementError


def family(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(each for child in kind.__subclasses__() for each in family(child))]


HOMES = ("gateway.metadata.errors", "gateway.objects.errors", "placement.errors")


@pytest.mark.parametrize("base", [MetadataError, ObjectsError, PlacementError])
def test_every_class_has_a_row(base: type[Exception]) -> None:
    without = [
        kind.__name__ for kind in family(base) if kind.__module__ in HOMES and kind not in ERROR_MAP
    ]
    assert without == []


def test_rows_answer_and_everything_else_is_our_bug() -> None:
    answer = to_s3_error(NoSuchKey("é".encode()))
    assert answer is not None
    assert (answer.code, answer.details) == (ErrorCode.NO_SUCH_KEY, {"Key": "é"})
    unknown = to_s3_error(OutcomeUnknown("lost"))
    assert unknown is not None
    assert unknown.code.status == 503
    own = S3Error(ErrorCode.INVALID_RANGE)
    assert to_s3_error(own) is own
    assert to_s3_error(KeyError("bug")) is None
