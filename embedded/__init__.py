"""PostgreSQL, Synapse and a mail server as children of this process: for the demo, the tests, and one machine.

`servers.start_all` starts them all below one state folder; `postgresql`, `synapse` and `mailserver` start one each.
"""
