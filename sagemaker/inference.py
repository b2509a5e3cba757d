"""The endpoint's script: the four functions of Amazon's PyTorch serving container, and `--serve` for a laptop (`learning.serving`)."""

from __future__ import annotations

from learning.serving import input_fn, main, model_fn, output_fn, predict_fn

__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]

if __name__ == "__main__":
    main()
