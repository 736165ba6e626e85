"""Experiment files (YAML, every key commented) and the scenario grid."""

# The scenarios that policies are compared over; `mix` is for training and is not among them.
GRID = ("default", "calm", "rush_hour", "starved_backhaul", "weak_gpu", "fast_vehicles", "long_context",
        "held_out_city")
