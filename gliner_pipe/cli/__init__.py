"""The command line: parsing of arguments and configs, shared by all commands."""
