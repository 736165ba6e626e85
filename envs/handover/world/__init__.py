"""The world of Handover as one event-driven simulator; the laws it is made of are in envs/sim."""
