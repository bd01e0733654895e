"""createCategory, viewCategory, countCategory (poco.md §11)."""

from __future__ import annotations

from tests.contracts.behaviours.stage import NO_DATA, NOT_OWNER, act, answer, refused
from tests.contracts.world import CATEGORIES, World


def test_view_categories(world: World) -> None:
    assert world.hub.countCategory() == len(CATEGORIES)
    for index, (name, description, timeref) in enumerate(CATEGORIES):
        category = {"name": name, "description": description, "workClockTimeRef": timeref}
        assert world.hub.viewCategory(index) == category


def test_not_view_category_with_bad_index(world: World) -> None:
    assert refused(world, "stranger", "viewCategory", len(CATEGORIES)) == NO_DATA


def test_create_category(world: World) -> None:
    new = ("XXL", "a day", 86_400)
    assert answer(world, "owner", "createCategory", *new) == len(CATEGORIES)
    done = act(world, "owner", "createCategory", *new)
    assert done.events == [("CreateCategory", len(CATEGORIES), *new)]
    assert world.hub.countCategory() == len(CATEGORIES) + 1
    assert tuple(world.hub.viewCategory(len(CATEGORIES)).values()) == new


def test_not_create_category_when_sender_not_authorized(world: World) -> None:
    assert refused(world, "stranger", "createCategory", "name", "description", 1) == NOT_OWNER
