"""An ordinary upstream for trying the gateway: small models that lie in installed packages.

Speaks OpenAI's wire and TEI's. Imports nothing of the gateway and never uses the network but to
listen.
"""
