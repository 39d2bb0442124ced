"""The language: types, nodes, the operator table, the parser and checker, and the plain three-valued evaluator."""
