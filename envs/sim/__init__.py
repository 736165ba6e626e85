"""The physics, without any RL: mobility, radio, cell changes, backhaul, prefill servers, sessions, migration."""
