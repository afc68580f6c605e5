<?php

namespace App\Models;

class Staff extends CompanyRecord
{
}
