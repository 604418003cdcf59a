"""What a training step costs on a device: time on host and device, kernels, memory, against stock prompt tuning."""
