"""What a device's step costs on the way between it and the server."""
