"""The tabs of the Space, each a function that builds one."""
