"""The encoder of colbert-ai's checkpoints: their files, how they are loaded, their inputs."""
