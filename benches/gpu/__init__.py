"""What rollkit does on a device, part by part: proofs beside the host, and times. See `record_gpu.py`."""
