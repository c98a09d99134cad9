"""The finders of boundary models need a span representation that proposes spans."""

import pytest

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.record_finders.boundary_records import BoundaryRecords
from gliner_pipe.modeling.relation_finders.boundary_pairs import BoundaryPairs
from gliner_pipe.modeling.span_reps.boundary import Boundary
from gliner_pipe.modeling.span_reps.boundary_pool import BoundaryPool
from gliner_pipe.modeling.span_reps.marker import MarkerV0


@pytest.mark.parametrize("finder", [BoundaryPairs(), BoundaryRecords()])
def test_other_span_representations_are_refused(finder):
    with pytest.raises(ConfigError, match="span_rep"):
        finder.check(MarkerV0())
    finder.check(BoundaryPool(candidate_states=True))


def test_records_need_vectors_of_spans():
    BoundaryPairs().check(Boundary())
    with pytest.raises(ConfigError, match="candidate_states"):
        BoundaryRecords().check(Boundary())
