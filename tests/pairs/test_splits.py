from dataclasses import dataclass

import pytest

from tomostain.pairs.splits import few, folds, hold_out, specimens_of


@dataclass
class Item:
    specimen: str
    name: str = "item"


ITEMS = [Item(f"S{i % 5}", f"item-{i}") for i in range(17)]


def test_no_specimen_is_on_both_sides_of_a_split():
    kept, held = hold_out(ITEMS, ("S1", "S4"))
    assert {i.specimen for i in held} == {"S1", "S4"}
    assert {i.specimen for i in kept} == {"S0", "S2", "S3"}
    assert len(kept) + len(held) == len(ITEMS)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_specimen_is_held_out_in_exactly_one_fold(count):
    dealt = folds(ITEMS, count)
    assert len(dealt) == count
    assert sorted(name for fold in dealt for name in fold) == ["S0", "S1", "S2", "S3", "S4"]


def test_groups_that_alternate_in_their_names_are_not_a_fold_each():
    legs = [Item(f"rat{rat}_{side}") for rat in range(8) for side in ("left", "right")]
    for fold in folds(legs, 2):
        sides = [name.rpartition("_")[2] for name in fold]
        assert min(sides.count("left"), sides.count("right")) >= 2
    assert folds(legs, 2) == folds(legs[::-1], 2)


@pytest.mark.parametrize("count", [1, 6])
def test_folds_that_cannot_be_dealt_are_refused(count):
    with pytest.raises(ValueError, match="cannot make"):
        folds(ITEMS, count)


def test_an_unknown_specimen_is_refused_and_the_nearest_named():
    with pytest.raises(ValueError, match="did you mean 'S1'"):
        hold_out([Item("S1"), Item("animal 7")], ("s1",))


def test_holding_out_everything_is_refused():
    with pytest.raises(ValueError, match="all specimens are held out"):
        hold_out(ITEMS, ("S0", "S1", "S2", "S3", "S4"))


def test_an_item_without_a_specimen_is_refused():
    with pytest.raises(ValueError, match="names no specimen"):
        specimens_of([Item("S1"), Item("")])


def test_few_pairs_are_dealt_from_one_specimen_after_the_other():
    items = [Item(name, f"{name}-{i}") for i, name in enumerate("AAABBC")]
    assert [item.specimen for item in few(items, 4)] == ["A", "A", "B", "C"]
    assert few(items, 3) == [items[0], items[3], items[5]]
    assert few(items, 99) == items
