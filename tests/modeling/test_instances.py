import numpy as np
import pytest

from gliner_pipe.modeling.backbones.base import Prompt, Window
from gliner_pipe.modeling.decoders.span import SpanDecoder
from gliner_pipe.modeling.instances import find_instances
from gliner_pipe.modeling.task_finders import CHOICE
from gliner_pipe.modeling.tasks import HEAD_AND_TAIL, Task, TaskField

SALE = Task(
    "record",
    "sale",
    (TaskField("buyer"), TaskField("things", is_list=True), TaskField("paid", choices=("y", "n"))),
)
WORKS_FOR = Task("relation", "works for", HEAD_AND_TAIL)
TASKS = (SALE, WORKS_FOR)
BUYER, THINGS, PAID = range(3)
HEAD, TAIL = range(2)


def window(start, stop, own_start, own_stop, text=0):
    ids = np.zeros(stop - start, np.int64)
    return Window(text, start, stop, own_start, own_stop, ids, ids + 1, Prompt(ids[:0], ids[:0]))


#: Three windows of 10 words, each shares 4 with the next.
WINDOWS = [window(0, 10, 0, 8), window(6, 16, 8, 14), window(12, 22, 14, 22)]


def decode(candidates):
    return SpanDecoder().decode(candidates, flat=True, multi_label=False)


def found(*values, windows=WINDOWS, matches=None):
    """Return task, and words and scores of each field, of values (window, task, instance, field, first, last, score)."""
    ordered = np.array(sorted(values), np.float64).reshape(-1, 7).T
    instances = find_instances(ordered, windows, TASKS, decode, matches)
    return [
        (task, [[(one.start, one.end, one.score) for one in field] for field in values])
        for task, values in instances
    ]


def test_a_field_has_its_best_value_or_all_that_do_not_overlap():
    values = [
        (0, 0, 0, field, *place)
        for field in (BUYER, THINGS)
        for place in ((1, 2, 0.5), (2, 2, 0.75), (4, 5, 0.25))
    ]
    assert found(*values) == [(0, [[(2, 2, 0.75)], [(2, 2, 0.75), (4, 5, 0.25)], []])]


def test_fields_and_instances_do_not_exclude_each_others_words():
    values = [(0, 0, 0, BUYER, 1, 2, 0.5), (0, 0, 0, THINGS, 2, 2, 0.75), (0, 0, 1, BUYER, 1, 2, 0.5)]
    assert found(*values) == [(0, [[(1, 2, 0.5)], [(2, 2, 0.75)], []]), (0, [[(1, 2, 0.5)], [], []])]


def test_a_relation_needs_both_ends_and_a_record_any_value():
    alone = [(0, 1, 0, HEAD, 1, 2, 0.5), (0, 0, 0, THINGS, 4, 4, 0.5)]
    assert found(*alone) == [(0, [[], [(4, 4, 0.5)], []])]
    assert found(*alone, (0, 1, 0, TAIL, 1, 2, 0.75))[1] == (1, [[(1, 2, 0.5)], [(1, 2, 0.75)]])


def test_of_choices_the_best_is_the_value():
    values = [(0, 0, 0, PAID, 0, CHOICE, 0.5), (0, 0, 0, PAID, 1, CHOICE, 0.75), (0, 0, 0, BUYER, 1, 1, 0.5)]
    assert found(*values) == [(0, [[(1, 1, 0.5)], [], [(1, CHOICE, 0.75)]])]


def test_values_that_are_not_allowed_are_left_out_before_the_choice():
    values = [(0, 0, 0, BUYER, 1, 2, 0.5), (0, 0, 0, BUYER, 2, 2, 0.75), (0, 0, 1, BUYER, 2, 2, 0.75)]

    def matches(task, field, value):
        return (task, field, value.start) != (0, BUYER, 2)

    assert found(*values, matches=matches) == [(0, [[(1, 2, 0.5)], [], []])]


@pytest.mark.parametrize(("first", "owner"), [(7, 0), (8, 1), (9, 1)])
def test_an_instance_belongs_to_the_window_that_owns_its_first_word(first, owner):
    for number in (0, 1):
        relation = [(number, 1, 0, HEAD, first, 9, 0.5), (number, 1, 0, TAIL, first + 1, 9, 0.5)]
        assert len(found(*relation)) == (number == owner)
        assert len(found((number, 0, 0, BUYER, 9, 9, 0.5), (number, 0, 0, THINGS, first, 9, 0.5))) == (
            number == owner
        )


def test_a_record_that_a_neighbour_sees_more_of_is_left_out():
    whole = [(0, 0, 0, BUYER, 7, 7, 0.5), (0, 0, 0, THINGS, 9, 9, 0.5)]
    part = (1, 0, 0, THINGS, 9, 9, 0.75)
    assert found(*whole, part) == [(0, [[(7, 7, 0.5)], [(9, 9, 0.5)], []])]
    other = (1, 0, 0, THINGS, 8, 8, 0.75)
    assert len(found(*whole, other)) == 2
    assert len(found(*whole, part, (1, 0, 0, PAID, 0, CHOICE, 0.5))) == 2
    # records of one window stay, as the model counted them
    assert len(found(*whole, (0, 0, 1, BUYER, 7, 7, 0.5))) == 2


def test_records_of_distant_windows_and_other_texts_stay():
    windows = [window(0, 10, 0, 10), window(10, 20, 10, 20)]
    values = [(0, 0, 0, BUYER, 1, 1, 0.5), (0, 0, 0, PAID, 0, CHOICE, 0.5), (1, 0, 0, BUYER, 11, 11, 0.5)]
    assert len(found(*values, windows=windows)) == 2
    other_text = [window(0, 10, 0, 10), window(0, 10, 0, 10, text=1)]
    assert len(found(*values[:2], windows=other_text)) == 1


def test_records_of_choices_alone_are_found_once_in_a_text():
    choice = [(number, 0, 0, PAID, 1, CHOICE, 0.5) for number in range(3)]
    assert found(*choice) == [(0, [[], [], [(1, CHOICE, 0.5)]])]
    assert len(found(choice[0], (2, 0, 0, PAID, 0, CHOICE, 0.5))) == 2
    with_buyer = [(2, 0, 0, BUYER, 20, 20, 0.5), (2, 0, 0, PAID, 1, CHOICE, 0.5)]
    assert found(*choice[:2], *with_buyer) == [(0, [[(20, 20, 0.5)], [], [(1, CHOICE, 0.5)]])]


def test_instances_are_ordered_by_task_window_and_number():
    values = [
        (2, 0, 0, BUYER, 20, 20, 0.5),
        (0, 0, 1, BUYER, 1, 1, 0.5),
        (0, 0, 0, BUYER, 3, 3, 0.5),
        (0, 1, 0, HEAD, 3, 3, 0.5),
        (0, 1, 0, TAIL, 4, 4, 0.5),
    ]
    assert [(task, fields[0][0][0]) for task, fields in found(*values)] == [(0, 3), (0, 1), (0, 20), (1, 3)]
