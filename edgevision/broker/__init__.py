"""A connection to an MQTT broker, whoever makes it: to publish, or to listen. What is sent, and when, is theirs."""
