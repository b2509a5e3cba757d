"""The observation's layout, its padding and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from trading_env.data.observation import Layout, ObservationError, observe, unpack

FEATURES = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
CONTEXT = np.array([0.5])
HELD = np.array([0.2, 0.3, 0.4])


def test_layout_is_blocks_then_cash_then_context():
    vector = observe(FEATURES, CONTEXT, np.array([True, True, True]), HELD, 0.1)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, [1, 2, 0.2, 1, 3, 4, 0.3, 1, 5, 6, 0.4, 1, 0.1, 0.5], rtol=1e-7)


def test_an_untradable_asset_is_padding_with_its_weight_kept():
    features = FEATURES.copy()
    features[1] = np.nan
    vector = observe(features, CONTEXT, np.array([True, False, True]), HELD, 0.1)
    np.testing.assert_allclose(vector[4:8], [0, 0, 0.3, 0], rtol=1e-7)


def test_unpack_finds_the_parts_again_in_one_and_in_many():
    layout = Layout(assets=3, features=2, context=1)
    one = observe(FEATURES, CONTEXT, np.array([True, False, True]), HELD, 0.1)
    parts = unpack(one, layout=layout)
    assert parts.assets.shape == (3, 4)
    assert parts.tradable.tolist() == [True, False, True]
    np.testing.assert_allclose(parts.rest, [0.1, 0.5], rtol=1e-7)
    many = unpack(np.stack([one, one * 2]), layout=layout)
    np.testing.assert_array_equal(many.assets[0], parts.assets)
    assert np.shares_memory(parts.assets, one)


def test_a_batch_is_its_rows():
    rng = np.random.default_rng(0)
    features, context, held = rng.normal(size=(5, 3, 2)), rng.normal(size=(5, 1)), rng.random((5, 3))
    tradable, cash = rng.random((5, 3)) < 0.7, rng.random(5)
    batch = observe(features, context, tradable, held, cash)
    for n in range(5):
        np.testing.assert_array_equal(batch[n], observe(features[n], context[n], tradable[n], held[n], float(cash[n])))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_a_value_that_float32_cannot_hold_is_refused_by_place(bad):
    features = FEATURES.copy()
    features[1, 0] = bad
    everything = np.array([True, True, True])
    with pytest.raises(ObservationError, match="feature 0 of asset 1 must be finite"):
        observe(features, CONTEXT, everything, HELD, 0.1)
    with pytest.raises(ObservationError, match="context feature 0 must be finite"):
        observe(FEATURES, np.array([bad]), everything, HELD, 0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(bad):
    everything = np.array([True, True, True])
    with pytest.raises(ObservationError, match="weights must be finite"):
        observe(FEATURES, CONTEXT, everything, np.array([0.1, bad, 0.1]), 0.1)
    with pytest.raises(ObservationError, match="weights must be finite"):
        observe(FEATURES, CONTEXT, everything, HELD, bad)


def test_the_layout_of_a_width():
    assert Layout.of_width(14, features=2, context=1) == Layout(assets=3, features=2, context=1)
    for width in (13, 2, 0):
        with pytest.raises(ObservationError, match=r"A \* 4 \+ 2 wide"):
            Layout.of_width(width, features=2, context=1)
    with pytest.raises(ObservationError, match="14 wide for 3 assets, was 13"):
        unpack(np.zeros(13, dtype=np.float32), layout=Layout(assets=3, features=2, context=1))
