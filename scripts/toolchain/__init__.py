"""Makes what the project runs with: tools, plugins, machine images. Standard library only, so that it runs first of all."""
