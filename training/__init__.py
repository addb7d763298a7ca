"""The room that learns: corruption, data, networks, training, evaluation and export."""
