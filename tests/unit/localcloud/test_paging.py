"""Pages and sorting as the API has them."""

from types import SimpleNamespace

import pytest

from scripts.localcloud.errors import ApiError
from scripts.localcloud.paging import paginate, sort_by


@pytest.mark.parametrize(
    ("count", "page", "per_page", "length", "meta"),
    [
        (0, 1, 25, 0, (1, None, None, 1)),
        (25, 1, 25, 25, (1, None, None, 1)),
        (26, 1, 25, 25, (1, None, 2, 2)),
        (26, 2, 25, 1, (2, 1, None, 2)),
        (120, 2, 50, 50, (2, 1, 3, 3)),
        (120, 9, 50, 0, (9, 8, None, 3)),
    ],
)
def test_a_page_says_where_it_stands(count, page, per_page, length, meta):
    """Page, previous, next and last page; a page beyond the end is empty."""
    part, found = paginate(range(count), page=page, per_page=per_page)

    pagination = found["pagination"]
    assert len(part) == length
    assert tuple(pagination[key] for key in ("page", "previous_page", "next_page", "last_page")) == meta
    assert pagination["total_entries"] == count


def test_a_page_never_has_more_than_50_entries():
    """The API caps per_page and says so."""
    part, meta = paginate(range(120), page=1, per_page=500)

    assert (len(part), meta["pagination"]["per_page"], meta["pagination"]["last_page"]) == (50, 50, 3)


ITEMS = [SimpleNamespace(id=number, name=name) for number, name in ((1, "b"), (2, "a"), (3, "b"))]


@pytest.mark.parametrize(
    ("keys", "ids"),
    [([], [1, 2, 3]), (["id:desc"], [3, 2, 1]), (["name"], [2, 1, 3]), (["name:asc", "id:desc"], [2, 3, 1])],
)
def test_the_first_sort_key_counts_most(keys, ids):
    """Several keys, each with a direction; by id when there is none."""
    assert [item.id for item in sort_by(ITEMS, keys, allowed=("id", "name"))] == ids


@pytest.mark.parametrize("key", ["created", "name:up", ""])
def test_an_unknown_sort_key_is_refused(key):
    """`invalid_input` names the parameter."""
    with pytest.raises(ApiError) as caught:
        sort_by(ITEMS, [key], allowed=("id", "name"))

    assert caught.value.details["fields"][0]["name"] == "sort"
