"""What both tasks stand on: steps, devices, optimisers, the loop, checkpoints, pictures."""
