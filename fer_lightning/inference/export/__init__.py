"""Networks as files that other programs run: ONNX, int8, safetensors, torch.export."""
