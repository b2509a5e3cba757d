"""Which orders belong together: an order and the legs that came with it."""

from __future__ import annotations


class LinkedOrders:
    """Groups of one account's orders, by id: a parent and its legs, take profit first; a replacement takes the place of the replaced."""

    def __init__(self) -> None:
        self._legs: dict[str, tuple[str, ...]] = {}
        self._parents: dict[str, str] = {}

    def link(self, parent: str, legs: tuple[str, ...]) -> None:
        self._legs[parent] = legs
        self._parents |= dict.fromkeys(legs, parent)

    def replace(self, old: str, new: str) -> None:
        if old in self._legs:
            self.link(new, self._legs.pop(old))
        elif old in self._parents:
            parent = self._parents.pop(old)
            self.link(parent, tuple(new if leg == old else leg for leg in self._legs[parent]))

    def parent(self, order_id: str) -> str | None:
        return self._parents.get(order_id)

    def legs(self, order_id: str) -> tuple[str, ...]:
        return self._legs.get(order_id, ())

    def others(self, order_id: str) -> tuple[str, ...]:
        """The group without the order itself."""
        parent = self._parents.get(order_id, order_id)
        return tuple(one for one in (parent, *self.legs(parent)) if one != order_id)
