"""The room that answers: HTTP in front, ONNX Runtime behind, no torch anywhere."""
