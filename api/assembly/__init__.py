"""The parts of an API process, in groups by what they are for. A group is made of those below it, and closed first."""
