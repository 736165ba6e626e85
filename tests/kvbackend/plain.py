"""What most oracles of these tests are written for: one list of tokens per session, ranked by the newest queries."""

from kvroam.kvbackend import KVSettings

PLAIN = KVSettings(scorer="window", scope="sequence")
