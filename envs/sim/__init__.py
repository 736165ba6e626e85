"""The laws that worlds are made of, without any RL: mobility, radio, cell changes, backhaul, servers, sessions."""
