"""The kinds of sinks, a module each, named like the kind. A new module is found without being listed anywhere."""
