"""What the doctor and the self-test found, as text for people and in the formats of CI systems."""
