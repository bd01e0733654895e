"""The worker: takes assignments from a workerpool, runs each in a sandboxed guest, contributes the result."""
