"""Settings: frozen dataclasses that YAML files fill, and the checks that refuse what cannot be."""
