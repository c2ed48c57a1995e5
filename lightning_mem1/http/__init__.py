"""JSON over HTTP with the standard library: asking a service and being one."""
