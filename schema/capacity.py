"""Whether the settings leave room for the orders of their names: said at synth, before anything is deployed.

Other limits hold for the most names that settings allow, whatever they say: docs/universes.md lists them, each with its test.
"""

from __future__ import annotations

from schema.settings import Settings, SettingsError

#: A run of execute_orders or reconcile sends at most so many orders of the broker's 200 requests a minute; the rest are its reads, and
#: those of other functions.
ORDERS_PER_RUN = 150


def refuse_too_many_names(settings: Settings) -> None:
    """Raise SettingsError when one rebalancing of every name, at each slot, is more than may be sent."""
    names, schedule, risk = len(settings.universe.symbols), settings.schedule, settings.risk
    orders = names * len(schedule.slots)
    if risk.max_orders_per_day < orders:
        each = "" if len(schedule.slots) == 1 else f" in each of {len(schedule.slots)} slots"
        raise SettingsError(
            f"risk.max_orders_per_day must be {orders} or more, one rebalancing of {names} names{each}, was {risk.max_orders_per_day}"
        )
    runs = 1 + schedule.slot_window_minutes // schedule.reconcile_every_minutes
    if runs * ORDERS_PER_RUN < names:
        needed = (-(-names // ORDERS_PER_RUN) - 1) * schedule.reconcile_every_minutes
        every = f"{ORDERS_PER_RUN} are sent at once and every {schedule.reconcile_every_minutes} minutes"
        raise SettingsError(
            f"schedule.slot_window_minutes must be {needed} or more, was {schedule.slot_window_minutes}: of {names} orders some {every}, "
            "for the broker takes 200 requests a minute"
        )
