<?php

namespace App\Models;

class Branch extends CompanyRecord
{
}
