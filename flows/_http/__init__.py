"""Calls to an API, for sources that read one and targets that write to one.

`options` is what can be configured, `authentication` who asks, `calls` what is asked, `client` makes the calls at a
settled `pace` with retries, `answers` says what came back, `jsonpaths` where in it to look, `loop` runs it all.
"""
