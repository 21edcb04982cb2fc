# SPDX-License-Identifier: Apache-2.0
"""The cycle model: how many cycles an accelerator step takes, from its commands alone.

    prediction = predict(step, config)
    prediction.counters["cycles"]

Every unit is modelled as its RTL works: see timeline.py for how, and the module of each unit for what.
"""

from loomwork.sim.cycles.prediction import Prediction, predict, predict_program

__all__ = ["Prediction", "predict", "predict_program"]
