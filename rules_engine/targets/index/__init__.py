"""The compiled rule index: all segments of one entity in one pass over its operands.

Begin with ``rule_index.py``. Rules become alternatives of conjunctions (``normal_form.py``, ``lowering.py``), each
conjunction one bit (``layout.py``), each operand a table from values to bits (``slots.py``, ``tables.py``).
"""
