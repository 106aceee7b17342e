"""All that knows a framework's memory: bytes in and out, place and take, scans."""
