# SPDX-License-Identifier: Apache-2.0
"""The cycle model: how many cycles an accelerator step takes, from its commands alone.

    predict(step, config).cycles
    with_predicted_cycles(program).report["totals"]["predicted_cycles"]

Every unit is modelled as its RTL works: see timeline.py for how, and the module of each unit for what.
"""

from loomwork.sim.cycles.layers import layer_cycles, with_predicted_cycles
from loomwork.sim.cycles.outcome import Prediction
from loomwork.sim.cycles.prediction import predict, predict_program

__all__ = ["Prediction", "layer_cycles", "predict", "predict_program", "with_predicted_cycles"]
